-- Writes a partition's first owner record, unless it has one.
-- KEYS: owner record. ARGV: genesis mark.
-- Returns 1 if it was written, 0 if it was there, -1 if it is of another genesis.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end
  return 0
end
redis.call('HSET', KEYS[1], 'm', ARGV[1], 's', '', 'e', 0, 't', '', 'c', 0)
return 1
