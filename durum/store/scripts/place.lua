-- Compare-and-set of a grain's host record by its token; sent again it finds itself done.
-- KEYS: owner record, host records.
-- ARGV: token, grain, 16 bytes of the hosted token seen or '', of the new one or '', its silo.
-- Returns the record in effect, or '' for none; or -1 no owner record, -2 other token.
local held = redis.call('HGET', KEYS[1], 't')
if not held then return -1 end
local found = redis.call('HGET', KEYS[2], ARGV[2]) or ''
local token = string.sub(found, 1, 16)
local done = token == ARGV[4]
if not done then
  if #ARGV[1] > 16 then
    if ARGV[1] ~= token .. ARGV[2] then return -2 end -- HOST
  elseif held ~= ARGV[1] or held == '' then return -2 end -- FENCE
  if token ~= ARGV[3] then return found end -- SEEN
end
if done then
  redis.pcall('HSET', KEYS[1], 't', held) -- a write, so that WAIT waits for it on this connection too
  return found
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
  return ''
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4] .. ARGV[5])
return ARGV[4] .. ARGV[5]
