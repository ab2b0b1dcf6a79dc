-- Settles a call whose reservation is not open, once: it was recorded as abandoned, or Redis does not know it (any more).
-- What is appended then is not what the counters hold, so they become unknown and follow the ledger.
--   KEYS  1 generation, 2 reservation, 3 usage stream, 4... period counters, last the claim of a call that has one
--   ARGV  1 generation, 2 id, 3 state of the reservation that the caller saw: 'a' or '', 4 ms to remember the settlement,
--         5 fingerprint of the claim ('' without one), 6 ms to keep the answer ('' without one), 7 answer,
--         8 number of events, 9... events (JSON), then actual units in the order of the admission
-- Answers { 'generation' }, { 'changed' } when the reservation is in another state, or { 'settled', id of stream entry... }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
local state, plan = read_reservation(KEYS[2])
if state ~= ARGV[3] then
  return { 'changed' }
end

local now = now_micros()
local events = tonumber(ARGV[8])
if state == 'a' then
  -- Buckets were left at the reserved amount.
  local limits, amounts = read_plan(plan)
  for i, limit in ipairs(limits) do
    if limit.kind == 'b' then
      local used = tonumber(ARGV[8 + events + i]) or amounts[i]
      store_slot(limit, settled(limit, load_slot(limit, now), amounts[i], used), now)
    end
  end
end
local claim = ARGV[5] ~= '' and KEYS[#KEYS] or nil
forget(keys_of(4, #KEYS - (claim and 1 or 0)), now)
if claim then
  end_claim(claim, ARGV[2], ARGV[5], ARGV[6], ARGV[7])
end
redis.call('SET', KEYS[2], 's', 'PX', ARGV[4])
local reply = { 'settled' }
for i = 1, events do
  reply[#reply + 1] = redis.call('XADD', KEYS[3], '*', 'event', ARGV[8 + i])
end
return reply
