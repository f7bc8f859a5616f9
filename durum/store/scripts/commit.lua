-- Makes a turn's effects true. Lua has no undo: all reads and checks stand above all writes.
-- KEYS: owner record, grain[, remembered replies]
-- ARGV: token, commit id, version, next version, '1' with a new state, state
--       [, number to forget, keys to forget..., key, reply, ...]
-- Returns commits, which is above 0 (a table would cost a microsecond more); {version, commits} for
-- a commit that was applied before; or -1 no owner record, -2 other token, -3 other version.
local grain = redis.call('HMGET', KEYS[2], 'v', 'i')
local last = grain[2]
local repeated = last and string.sub(last, 1, 16) == ARGV[2]
if not repeated then
--#include fence
if (grain[1] or '0') ~= ARGV[3] then return -3 end -- VERSION
end
if repeated then
  redis.pcall('HSET', KEYS[2], 'i', last) -- a write, so that WAIT waits for it on this connection too
  local version, commits = string.match(last, '^(%d+) (%d+)$', 17)
  return {tonumber(version), tonumber(commits)}
end
if KEYS[3] then redis.call('HLEN', KEYS[3]) end -- fails here, not between writes, if it is no hash
if not last then
  -- Its first commit, or the first since it was erased. The names are made here, since sending them
  -- along would cost every commit; the partition's hash tag keeps them on this server.
  local prefix = string.sub(KEYS[1], 1, -4)
  local id = string.sub(KEYS[2], #prefix + 3)
  redis.call('ZADD', prefix .. 'idx', 0, id) -- first: it fails where that is no index
  redis.call('PERSIST', KEYS[2])
  redis.call('PERSIST', prefix .. 'r:' .. id)
end
local commits = redis.call('HINCRBY', KEYS[1], 'c', 1)
local answer = ARGV[2] .. ARGV[4] .. ' ' .. commits
if ARGV[5] == '1' then
  redis.call('HSET', KEYS[2], 'v', ARGV[4], 'i', answer, 'd', ARGV[6])
else
  redis.call('HSET', KEYS[2], 'v', ARGV[4], 'i', answer)
end
if KEYS[3] then
  local first = 8 + tonumber(ARGV[7])
  for i = 8, first - 1 do redis.call('HDEL', KEYS[3], ARGV[i]) end
  for i = first, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
return commits
