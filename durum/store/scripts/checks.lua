-- Included by all commits, before all else. Leaves `last`: the last commit's id and answer, or false.
local grain = redis.call('HMGET', KEYS[2], 'v', 'i')
local last = grain[2]
local repeated = last and string.sub(last, 1, 16) == ARGV[2]
if not repeated then
--#include fence
if (grain[1] or '0') ~= ARGV[3] then return -3 end -- VERSION
end
if repeated then
  redis.pcall('HSET', KEYS[2], 'i', last) -- a write, so that WAIT waits for it on this connection too
  local version, commits, first = string.match(last, '^(%d+) (%d+) ?(%d*)$', 17)
  return {tonumber(version), tonumber(commits), tonumber(first) or 0}
end
