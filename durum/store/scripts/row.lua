-- Sets one row if row and version are as seen.
-- KEYS: membership table. ARGV: genesis mark, silo, row seen or '', new row or '', version, channel.
-- Returns the new version, -1 not of this genesis, -2 something had changed.
if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end
local field = 's:' .. ARGV[2]
if redis.call('HGET', KEYS[1], 'v') ~= ARGV[5] then return -2 end
if (redis.call('HGET', KEYS[1], field) or '') ~= ARGV[3] then return -2 end
local version = redis.call('HINCRBY', KEYS[1], 'v', 1)
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], field, 'h:' .. ARGV[2], 'l:' .. ARGV[2])
else
  redis.call('HSET', KEYS[1], field, ARGV[4])
end
redis.pcall('PUBLISH', ARGV[6], version) -- only a hint: it may fail
return version
