-- Included by commits that change parts, behind checks. Leaves `purged`, the names to purge.
-- These fail here, not between writes, if something else is there.
if ARGV[7] + ARGV[8] > 0 then redis.call('HLEN', KEYS[3]) end
local parts = ARGV[9] + ARGV[10] + ARGV[11] > 0
if parts then redis.call('HLEN', KEYS[4]) end
local purged = {}
local range = #ARGV - 2 * tonumber(ARGV[11]) + 1
for i = range, #ARGV, 2 do
  local found = redis.call('ZRANGEBYLEX', KEYS[5], '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, ARGV[12])
  for _, name in ipairs(found) do purged[#purged + 1] = name end
end
if parts then redis.call('ZCARD', KEYS[5]) end
