-- Compares the token. KEYS: owner record. ARGV: token.
-- Returns 1, or -1 no owner record, -2 other token.
--#include fence
return 1
