-- Makes a turn's effects true. Lua has no undo: all reads and checks stand above all writes.
-- KEYS: owner record, grain[, remembered replies]
-- ARGV: token, commit id, version, next version, '1' with a new state, state
--       [, number to forget, keys to forget..., key, reply, ...]
-- Returns commits, which is above 0 (a table would cost a microsecond more); {version, commits} for
-- a commit that was applied before; or -1 no owner record, -2 other token, -3 other version.
--#include checks
if KEYS[3] then redis.call('HLEN', KEYS[3]) end -- fails here, not between writes, if it is no hash
--#include record
if KEYS[3] then
  local first = 8 + tonumber(ARGV[7])
  for i = 8, first - 1 do redis.call('HDEL', KEYS[3], ARGV[i]) end
  for i = first, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
return commits
