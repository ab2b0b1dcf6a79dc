-- States of limits, taking nothing.
--   KEYS  1 generation
--   ARGV  1 generation, 2 plan that names the limits, 3 seeds as load_known takes them
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
local reply = { 'states' }
for _, limit in ipairs(limits) do
  push_state(reply, limit, slot_of(limit, now), now)
end
return reply
