-- Makes the effects of a turn true that sends, sets wake-ups or parks; else as commit_parts does.
-- KEYS: those of commit_parts, then outbox, wake-ups, dead letters, their names sorted
-- ARGV: as for commit_parts, and before the ranges to purge: most in the outbox or 0, what the grain's members
--       of the wake-ups begin with, numbers: messages, wake-ups to set, to drop, letters to set, to drop,
--       then those: message..., (name, time)..., name..., (name, letter)..., name...
-- Returns {version, commits, number of the first message or 0}; or -1 no owner record, -2 other token,
-- -3 other version, -4 no room.
--#include checks
--#include parts_checks
local head = 13 + ARGV[7] + 2 * ARGV[8] + ARGV[9] + 2 * ARGV[10]
local most, stem, sends = tonumber(ARGV[head]), ARGV[head + 1], tonumber(ARGV[head + 2])
local wakes, letters = ARGV[head + 3] + ARGV[head + 4], ARGV[head + 5] + ARGV[head + 6]
local posted = sends > 0 and redis.call('ZCARD', KEYS[6]) -- these fail here too
if wakes > 0 then redis.call('ZCARD', KEYS[7]) end
if letters > 0 then
  redis.call('HLEN', KEYS[8])
  redis.call('ZCARD', KEYS[9])
end
if sends > 0 and most > 0 and posted + sends > most then return -4 end -- ROOM
local owner = redis.call('HMGET', KEYS[1], 'e', 't')
--#include record
--#include parts_writes
at = head + 7
local first = 0
if sends > 0 then
  first = redis.call('HINCRBY', KEYS[1], 'n', sends) - sends + 1
  redis.call('HSET', KEYS[2], 'i', answer .. ' ' .. first)
  local origin = struct.pack('>I8', owner[1]) .. owner[2]
  for number = first, first + sends - 1 do
    redis.call('ZADD', KEYS[6], number, struct.pack('>I8', number) .. origin .. ARGV[at])
    at = at + 1
  end
end
for _ = 1, tonumber(ARGV[head + 3]) do
  redis.call('HSET', KEYS[2], 'w:' .. ARGV[at], ARGV[at + 1]) -- by it an erasure finds them
  redis.call('ZADD', KEYS[7], ARGV[at + 1], stem .. ARGV[at])
  at = at + 2
end
for _ = 1, tonumber(ARGV[head + 4]) do
  redis.call('HDEL', KEYS[2], 'w:' .. ARGV[at])
  redis.call('ZREM', KEYS[7], stem .. ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[head + 5]) do
  redis.call('HSET', KEYS[8], ARGV[at], ARGV[at + 1])
  redis.call('ZADD', KEYS[9], 0, ARGV[at])
  at = at + 2
end
for _ = 1, tonumber(ARGV[head + 6]) do
  redis.call('HDEL', KEYS[8], ARGV[at])
  redis.call('ZREM', KEYS[9], ARGV[at])
  at = at + 1
end
return {tonumber(ARGV[4]), commits, first}
