-- Included by commits that change parts, behind checks. Leaves `purged`, the names to purge.
redis.call('HLEN', KEYS[3]) -- these fail here, not between writes, if something else is there
redis.call('HLEN', KEYS[4])
local purged = {}
local range = #ARGV - 2 * tonumber(ARGV[11]) + 1
for i = range, #ARGV, 2 do
  local found = redis.call('ZRANGEBYLEX', KEYS[5], '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, ARGV[12])
  for _, name in ipairs(found) do purged[#purged + 1] = name end
end
redis.call('ZCARD', KEYS[5])
