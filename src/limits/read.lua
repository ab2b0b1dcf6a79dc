-- States of limits, taking nothing. A seed that is given is kept, so that the ledger is asked once.
--   KEYS  limits
--   ARGV  for each limit: kind, capacity, rate or end, seed
-- Answers { 'unseeded', index... } or { 'states', remaining, reset, ... }.

local now = now_micros()
local reply = { 'states' }
local unseeded = { 'unseeded' }
for i, limit in ipairs(parse_limits(1, 1, 4)) do
  local slot = load_slot(limit, now)
  if slot then
    if limit.kind == 'p' and limit.seed ~= '' then
      store_slot(limit, slot, now)
    end
    push_state(reply, limit, slot)
  else
    unseeded[#unseeded + 1] = i - 1
  end
end
if #unseeded > 1 then
  return unseeded
end
return reply
