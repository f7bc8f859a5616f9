-- Reads a page of wake-ups by time, then member. KEYS: owner record, wake-ups.
-- ARGV: token, latest time, how many at most[, time and member behind which to begin]
-- Returns {member, time, ...}, or -1 no owner record, -2 other token.
--#include fence
-- Compares bytes, as sorted sets do; Lua's own < asks the server's locale.
local function is_above(one, other)
  for i = 1, math.min(#one, #other) do
    local mine, its = string.byte(one, i), string.byte(other, i)
    if mine ~= its then return mine > its end
  end
  return #one > #other
end
local from = 0
if ARGV[4] then
  -- Between those before that time and those behind it: a search by halves, since what it began behind may
  -- be gone, and many may be due at once.
  from = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. ARGV[4])
  local to = from + redis.call('ZCOUNT', KEYS[2], ARGV[4], ARGV[4])
  while from < to do
    local middle = math.floor((from + to) / 2)
    if is_above(redis.call('ZRANGE', KEYS[2], middle, middle)[1], ARGV[5]) then
      to = middle
    else
      from = middle + 1
    end
  end
end
local beyond = math.min(redis.call('ZCOUNT', KEYS[2], '-inf', ARGV[2]), from + ARGV[3])
if beyond <= from then return {} end
return redis.call('ZRANGE', KEYS[2], from, beyond - 1, 'WITHSCORES')
