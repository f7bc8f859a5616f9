-- Reads parts of a record by name. KEYS: owner record, parts. ARGV: token, '1' with contents, names...
-- Returns one content for each name (or whether it is there), or -1 no owner record, -2 other token.
--#include fence
local read = ARGV[2] == '1' and 'HGET' or 'HEXISTS'
local found = {}
for i = 3, #ARGV do found[i - 2] = redis.call(read, KEYS[2], ARGV[i]) end
return found
