-- Stands in fence's place where the token is a hosted one: 16 bytes, and the id of the grain it is good for.
local held = redis.call('HGET', KEYS[1], 't')
if not held then return -1 end
local partition, hosted = string.sub(KEYS[1], 1, -4), string.sub(ARGV[1], 17)
if KEYS[2] and string.sub(KEYS[2], #partition + 3) ~= hosted then return -2 end -- GRAIN
local host = redis.call('HGET', partition .. 'hosts', hosted)
if not host or string.sub(host, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return -2 end -- HOST
