-- Acknowledges entries and forgets what every reader has acknowledged.
--   KEYS  1 usage stream
--   ARGV  1 group, 2... entry ids
-- Trims below the oldest pending entry; with none pending, up to the last delivered one. Never by length: an entry
-- that was not acknowledged is never dropped. One script, because a delivery between looking and trimming would be lost.

for first = 2, #ARGV, 1000 do
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
local keep_from = pending[2]
if tonumber(pending[1]) == 0 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    if facts['name'] == ARGV[1] then
      local ms, sequence = string.match(facts['last-delivered-id'], '^(%d+)-(%d+)$')
      keep_from = ms .. '-' .. int(tonumber(sequence) + 1)
    end
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', keep_from)
