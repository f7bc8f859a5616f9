-- Reads remembered replies. KEYS: owner record, remembered replies. ARGV: token.
-- Returns {key, reply, ...}, or -1 no owner record, -2 other token.
--#include fence
return redis.call('HGETALL', KEYS[2])
