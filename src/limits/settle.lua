-- Replaces the reserved cost by the actual one and appends the usage event, once.
--   KEYS  1 generation, 2 reservation, 3 leases, 4 usage stream, 5... period counters that the event moves beside those of
--         the reservation: of limits that are newer than the admission; last the claim of a call that has one
--   ARGV  1 generation, 2 id, 3 event (JSON; '' releases the reservation without a record),
--         4 ms to remember that it is settled, 5 fingerprint of the claim ('' without one), 6 ms to keep the answer
--         ('' without one), 7 answer, 8... actual units in the order of the admission
-- Answers { 'generation' }, { 'late', abandoned event } when its lease ran out,
--   { 'unknown' } when there is no such reservation (for the two see late.lua),
--   { 'settled', id of the stream entry, index, used, threshold, ... } with the thresholds that are to be told, or
--   { 'again', ... } with the same when it is settled already; the id is '' where nobody knows it.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end

local state, plan, abandoned = read_reservation(KEYS[2])
if state == 's' then
  local reply = { 'again', '' }
  for word in string.gmatch(string.sub(redis.call('GET', KEYS[2]), 2), '%S+') do
    reply[reply[2] == '' and 2 or #reply + 1] = word
  end
  return reply
elseif state == 'a' then
  return { 'late', abandoned }
elseif state == '' and ARGV[3] ~= '' then
  return { 'unknown' }
end

local claim = ARGV[5] ~= '' and KEYS[#KEYS] or nil
local reply = { 'settled', '' }
if state == 'o' then
  local now = now_micros()
  for i, limit in ipairs(read_plan(plan)) do
    local slot = settled(limit, load_slot(limit, now), limit.amount, tonumber(ARGV[7 + i]) or limit.amount)
    -- Nobody hears what a release answers.
    local threshold = limit.kind == 'p' and slot.used and ARGV[3] ~= '' and untold(slot, limit.capacity)
    if threshold then
      remind(slot, limit.capacity, threshold == 100 and limit.capacity or 0)
      reply[#reply + 1] = i - 1
      reply[#reply + 1] = int(slot.used)
      reply[#reply + 1] = int(threshold)
    end
    store_slot(limit, slot, now)
  end
  forget(5, #KEYS - (claim and 1 or 0), now)
  redis.call('ZREM', KEYS[3], ARGV[2])
end

if claim then
  end_claim(claim, ARGV[2], ARGV[5], ARGV[6], ARGV[7])
end
if ARGV[3] ~= '' then
  reply[2] = redis.call('XADD', KEYS[4], '*', 'event', ARGV[3])
end
-- Also for a release of what Redis never saw: an admission that is still on its way then takes nothing.
redis.call('SET', KEYS[2], 's' .. table.concat(reply, ' ', 2), 'PX', ARGV[4])
return reply
