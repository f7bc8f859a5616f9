-- Compare-and-set of an owner record by its token; sent again it finds itself done.
-- KEYS: owner record. ARGV: genesis mark, token seen, new token, silo or ''.
-- Returns the record in effect {silo, epoch, token, commits}, or -1 not of this genesis.
local record = redis.call('HMGET', KEYS[1], 'm', 's', 'e', 't', 'c')
if record[1] ~= ARGV[1] then return -1 end
local silo, epoch, token = record[2], record[3], record[4]
if token == ARGV[2] and token ~= ARGV[3] then
  silo, token = ARGV[4], ARGV[3]
  epoch = redis.call('HINCRBY', KEYS[1], 'e', 1)
  redis.call('HSET', KEYS[1], 's', silo, 't', token)
elseif token == ARGV[3] then
  redis.pcall('HSET', KEYS[1], 't', token) -- a write, so that WAIT waits for it on this connection too
end
return {silo, tonumber(epoch), token, tonumber(record[5])}
