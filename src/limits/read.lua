-- States of limits, taking nothing. What replicas hold in slices is left: no call has it.
--   KEYS  1 generation, 2 ends of what replicas hold
--   ARGV  1 generation, 2 plan that names the limits, 3 seeds as load_known takes them, 4 prefix of the keys of holdings
-- Answers { 'generation' }, { 'unseeded', index, version, ... } or { 'states', remaining, reset, ... }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
local now = now_micros()
local limits = read_plan(ARGV[2])
local unseeded = load_known(limits, ARGV[3], now)
store_slots(now)
if unseeded then
  return unseeded
end
local holders = redis.call('ZRANGE', KEYS[2], 0, -1)
local reply = { 'states' }
for _, limit in ipairs(limits) do
  local slot = slot_of(limit, now)
  for _, holder in ipairs(holders) do
    local held = redis.call('HGET', ARGV[4] .. holder, limit.text)
    slot = held and returned(limit, slot, tonumber(held)) or slot
  end
  push_state(reply, limit, slot, now)
end
return reply
