-- Reads a grain. KEYS: owner record, grain. ARGV: token.
-- Returns {version, state}, or -1 no owner record, -2 other token; or the host record of a grain that has one.
--#include fence
--#include unhosted
return redis.call('HMGET', KEYS[2], 'v', 'd')
