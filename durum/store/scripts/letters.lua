-- Reads a page of dead letters by the order of their names. KEYS: letters, their names sorted.
-- ARGV: least as ZRANGEBYLEX takes it, how many at most, after how many bytes to stop.
-- Returns {name, letter, ...}.
local page, size, most = {}, 0, tonumber(ARGV[3])
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  local letter = redis.call('HGET', KEYS[1], name)
  page[#page + 1] = name
  page[#page + 1] = letter
  size = size + #letter
  if size >= most then break end
end
return page
