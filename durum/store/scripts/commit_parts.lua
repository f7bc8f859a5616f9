-- Makes the effects of a turn true that has changed parts of the record; else as commit does.
-- KEYS: owner record, grain, remembered replies, parts, their names sorted
-- ARGV: token, commit id, version, next version, '1' with a new state, state,
--       numbers: replies to forget, to set, parts to drop, to set, ranges to purge, parts of each at most,
--       then those: key..., (key, reply)..., name..., (name, content)..., (least, beyond)...
-- Returns as commit does.
--#include checks
redis.call('HLEN', KEYS[3]) -- these fail here, not between writes, if something else is there
redis.call('HLEN', KEYS[4])
local purged = {}
local range = #ARGV - 2 * tonumber(ARGV[11]) + 1
for i = range, #ARGV, 2 do
  local found = redis.call('ZRANGEBYLEX', KEYS[5], '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, ARGV[12])
  for _, name in ipairs(found) do purged[#purged + 1] = name end
end
redis.call('ZCARD', KEYS[5])
--#include record
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
return commits
