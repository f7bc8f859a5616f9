-- Reads the membership table at one instant. KEYS: membership table. ARGV: genesis mark.
-- Returns {field, value, ...} and {seconds, microseconds}, or -1 not of this genesis.
if redis.call('HGET', KEYS[1], 'm') ~= ARGV[1] then return -1 end
return {redis.call('HGETALL', KEYS[1]), redis.call('TIME')}
