-- Renews a silo's lease: a write, so that a replica or a full server refuses it.
-- KEYS: membership table. ARGV: genesis mark, silo, load.
-- Returns {status letter, heartbeat, version, {seconds, microseconds}}, -1 not of this genesis,
-- -2 no such row.
local found = redis.call('HMGET', KEYS[1], 'm', 'v', 's:' .. ARGV[2], 'h:' .. ARGV[2])
if found[1] ~= ARGV[1] then return -1 end
if not found[3] then return -2 end
local letter, heartbeat = string.sub(found[3], 1, 1), tonumber(found[4] or '0')
if letter ~= 'D' then
  heartbeat = redis.call('HINCRBY', KEYS[1], 'h:' .. ARGV[2], 1)
  redis.call('HSET', KEYS[1], 'l:' .. ARGV[2], ARGV[3])
end
return {letter, heartbeat, tonumber(found[2]), redis.call('TIME')}
