-- Included by all commits: the first writes, after the last check. Leaves `commits`, the counter, and `answer`.
if not last then
  -- Its first commit, or the first since it was erased. The names are made here, since sending them
  -- along would cost every commit; the partition's hash tag keeps them on this server.
  local prefix = string.sub(KEYS[1], 1, -4)
  local id = string.sub(KEYS[2], #prefix + 3)
  redis.call('ZADD', prefix .. 'idx', 0, id) -- first: it fails where that is no index
  redis.call('PERSIST', KEYS[2])
  for _, part in ipairs({'r:', 'p:', 'n:'}) do redis.call('PERSIST', prefix .. part .. id) end
end
local commits = redis.call('HINCRBY', KEYS[1], 'c', 1)
local answer = ARGV[2] .. ARGV[4] .. ' ' .. commits
if ARGV[5] == '1' then
  redis.call('HSET', KEYS[2], 'v', ARGV[4], 'i', answer, 'd', ARGV[6])
else
  redis.call('HSET', KEYS[2], 'v', ARGV[4], 'i', answer)
end
