-- Included by every script that acts for a grain. KEYS[1]: owner record. ARGV[1]: token.
local held = redis.call('HGET', KEYS[1], 't')
if not held then return -1 end
if held ~= ARGV[1] or held == '' then return -2 end -- FENCE
