-- Reads a page of the outbox by numbers. KEYS: owner record, outbox.
-- ARGV: token, number behind which to begin, how many at most, after how many bytes of rows to stop.
-- Returns {message, ...}, or -1 no owner record, -2 other token.
--#include fence
local page, size, after = {}, 0, ARGV[2]
local left, most = tonumber(ARGV[3]), tonumber(ARGV[4])
while left > 0 and size < most do
  -- A few at a time: large ones must not come all at once only to be left out.
  local some = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, '+inf', 'LIMIT', 0, math.min(left, 16))
  if #some == 0 then break end
  for _, message in ipairs(some) do
    page[#page + 1] = message
    size = size + #message - 34 - struct.unpack('>I2', message, 33)
    left = left - 1
    if size >= most then break end
  end
  after = string.format('%.0f', struct.unpack('>I8', page[#page]))
end
return page
