-- Takes messages out of the outbox. KEYS: owner record, outbox. ARGV: token, numbers...
-- Returns 1, or -1 no owner record, -2 other token.
--#include fence
for i = 2, #ARGV do redis.call('ZREMRANGEBYSCORE', KEYS[2], ARGV[i], ARGV[i]) end
return 1
