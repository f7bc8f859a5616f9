-- Reads a grain and raises its version, so that no commit sent before can land.
-- KEYS: owner record, grain. ARGV: token. Returns as load does.
--#include fence
--#include unhosted
local state = redis.call('HGET', KEYS[2], 'd')
return {redis.call('HINCRBY', KEYS[2], 'v', 1), state}
