-- States of limits, taking nothing.
--   KEYS  1 generation, 2... limits
--   ARGV  1 generation, 2... for each limit four as read_limits takes them
-- Answers { 'generation' }, { 'unseeded', index, version, ... } or { 'states', remaining, reset, ... }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
local now = now_micros()
local limits = read_limits(2, #KEYS - 1, 2, 4)
local slots, unseeded = load_known(limits, now)
if unseeded then
  return unseeded
end
local reply = { 'states' }
for _, limit in ipairs(limits) do
  push_state(reply, limit, slots[limit.key], now)
end
return reply
