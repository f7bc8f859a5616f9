-- Reads a page of parts by the order of their names. KEYS: owner record, parts, their names sorted.
-- ARGV: token, least and beyond as ZRANGEBYLEX takes them, how many at most, after how many bytes to stop.
-- Returns {name, content, ...}, or -1 no owner record, -2 other token.
--#include fence
local page, size, most = {}, 0, tonumber(ARGV[5])
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])) do
  local content = redis.call('HGET', KEYS[2], name)
  page[#page + 1] = name
  page[#page + 1] = content
  size = size + #content
  if size >= most then break end
end
return page
