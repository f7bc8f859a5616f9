-- Compare-and-set of an owner record by its token; sent again it finds itself done.
-- KEYS: owner record, outbox, wake-ups. ARGV: genesis mark, token seen, new token, silo or ''.
-- Returns the record in effect {silo, epoch, token, commits}, behind it {messages in the outbox, epoch of the
-- first or 0, time of the first wake-up or nil}; or -1 not of this genesis.
local record = redis.call('HMGET', KEYS[1], 'm', 's', 'e', 't', 'c')
if record[1] ~= ARGV[1] then return -1 end
local posted, first = redis.call('ZCARD', KEYS[2]), redis.call('ZRANGE', KEYS[2], 0, 0)[1]
local earliest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
local silo, epoch, token = record[2], record[3], record[4]
if token == ARGV[2] and token ~= ARGV[3] then
  silo, token = ARGV[4], ARGV[3]
  epoch = redis.call('HINCRBY', KEYS[1], 'e', 1)
  redis.call('HSET', KEYS[1], 's', silo, 't', token)
elseif token == ARGV[3] then
  redis.pcall('HSET', KEYS[1], 't', token) -- a write, so that WAIT waits for it on this connection too
end
return {
  silo, tonumber(epoch), token, tonumber(record[5]),
  posted, first and struct.unpack('>I8', first, 9) or 0, earliest or false,
}
