-- Included by what begins to serve a grain under the owner's token: it must have no host record.
local partition = string.sub(KEYS[1], 1, -4)
local host = redis.call('HGET', partition .. 'hosts', string.sub(KEYS[2], #partition + 3))
if host then return host end -- HOSTED
