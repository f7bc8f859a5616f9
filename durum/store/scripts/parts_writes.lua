-- Included by commits that change parts, behind record. Leaves `at`, where the arguments go on.
local at = 13
for _ = 1, tonumber(ARGV[7]) do
  redis.call('HDEL', KEYS[3], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[8]) do
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _, name in ipairs(purged) do
  redis.call('HDEL', KEYS[4], name)
  redis.call('ZREM', KEYS[5], name)
end
for _ = 1, tonumber(ARGV[9]) do
  redis.call('HDEL', KEYS[4], ARGV[at])
  redis.call('ZREM', KEYS[5], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[10]) do
  redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1])
  redis.call('ZADD', KEYS[5], 0, ARGV[at])
  at = at + 2
end
