-- Notes what was told of periods before Redis lost its data, as one of the processes remembers it.
--   KEYS  1 generation, 2... period counters
--   ARGV  1 generation, then for each counter: end of its period in unix ms, and what was told (see buckets.ts)
-- Answers { 'generation' } or { 'reminded' }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
local now = now_micros()
for i = 2, #KEYS do
  local arg = 2 + (i - 2) * 3
  local limit = new_limit('p', 0, ARGV[arg], 0, KEYS[i])
  local slot = load_slot(limit, now)
  remind(slot, tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]))
  store_slot(limit, slot, now)
end
return { 'reminded' }
