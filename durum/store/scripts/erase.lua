-- Takes a grain's state and parts away; version and remembered replies stay for a while.
-- KEYS: owner record, grain, remembered replies, index, parts, their names sorted.
-- ARGV: token, version, next version, grain, seconds.
-- Returns {version, commits}, or -1 no owner record, -2 other token, -3 other version.
--#include fence
local grain = redis.call('HMGET', KEYS[2], 'v', 'i')
local repeated = grain[1] == ARGV[3] and not grain[2]
if not repeated and (grain[1] or '0') ~= ARGV[2] then return -3 end
if repeated then
  redis.pcall('HSET', KEYS[2], 'v', ARGV[3]) -- a write, so that WAIT waits for it on this connection too
  return {tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[1], 'c'))}
end
redis.call('ZREM', KEYS[4], ARGV[4]) -- first: it fails where the index is none, and then nothing was written
local commits = redis.call('HINCRBY', KEYS[1], 'c', 1)
redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6])
redis.call('HSET', KEYS[2], 'v', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return {tonumber(ARGV[3]), commits}
