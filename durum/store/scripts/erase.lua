-- Takes a grain's state, parts and wake-ups away; version, remembered replies and marks stay for a while.
-- KEYS: owner record, grain, remembered replies, index, parts, their names sorted, wake-ups.
-- ARGV: token, version, next version, grain, seconds, what the grain's members of the wake-ups begin with,
--       least and beyond of the names of marks.
-- Returns {version, commits}, or -1 no owner record, -2 other token, -3 other version.
--#include fence
local grain = redis.call('HMGET', KEYS[2], 'v', 'i')
local repeated = grain[1] == ARGV[3] and not grain[2]
if not repeated and (grain[1] or '0') ~= ARGV[2] then return -3 end
if repeated then
  redis.pcall('HSET', KEYS[2], 'v', ARGV[3]) -- a write, so that WAIT waits for it on this connection too
  return {tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[1], 'c'))}
end
redis.call('ZCARD', KEYS[7]) -- these fail here, not between writes, if something else is there
redis.call('HLEN', KEYS[5])
local marks = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[6], ARGV[7], ARGV[8])) do
  marks[name] = redis.call('HGET', KEYS[5], name)
end
local fields = redis.call('HKEYS', KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[4]) -- first: it fails where the index is none, and then nothing was written
local commits = redis.call('HINCRBY', KEYS[1], 'c', 1)
for _, field in ipairs(fields) do
  if string.sub(field, 1, 2) == 'w:' then redis.call('ZREM', KEYS[7], ARGV[6] .. string.sub(field, 3)) end
end
redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6])
for name, content in pairs(marks) do
  redis.call('HSET', KEYS[5], name, content)
  redis.call('ZADD', KEYS[6], 0, name)
end
redis.call('HSET', KEYS[2], 'v', ARGV[3])
for i = 2, 6 do
  if i ~= 4 then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
return {tonumber(ARGV[3]), commits}
