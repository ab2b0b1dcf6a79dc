-- Replaces the reserved cost by the actual one and appends the usage event, once; for many calls, one after the other.
--   KEYS  1 generation, 2 leases, 3 usage stream
--   ARGV  1 generation, 2 prefix of the reservations' keys, 3 ms to remember that a call is settled, 4 number of sets of
--         period counters, 5... the sets, each of names with a tab between two, then for each call eight: id, event (JSON;
--         '' releases the reservation without a record), key of its claim and fingerprint ('' without one), ms to keep the
--         answer ('' without one), answer, actual units in the order of the admission with a space between two, and the
--         index of the set that the event moves (0 for none)
-- Answers { 'generation' }, or for each call one of { 'late', abandoned event } when its lease ran out,
--   { 'unknown' } when there is no such reservation (for the two see late.lua),
--   { 'settled', outcome } with the id of the stream entry and, each after a space, index, used and threshold of what is
--   to be told, { 'again', outcome } when it is settled already; the id is '' where nobody knows it, or { 'failed', why }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end

local now = now_micros()
local sets = {}

-- The counters that an event moves beside those that its reservation holds are those of limits that are newer than the
-- admission.
local function forget_others(index, held)
  sets[index] = sets[index] or words_of(ARGV[4 + index], '[^\t]+')
  local others = {}
  for _, name in ipairs(sets[index]) do
    if not held[name] then
      others[#others + 1] = name
    end
  end
  forget(others, now)
end

local function settle(at)
  local id, event, claim, fingerprint, ttl, answer, actual, set = unpack(ARGV, at, at + 7)
  local reservation = ARGV[2] .. id
  local state, plan, abandoned = read_reservation(reservation)
  if state == 's' then
    return { 'again', string.sub(redis.call('GET', reservation), 2) }
  elseif state == 'a' then
    return { 'late', abandoned }
  elseif state == '' and event ~= '' then
    return { 'unknown' }
  end

  local after = {}
  local told = {}
  local limits, amounts = read_plan(state == 'o' and plan or '')
  local units = words_of(actual, '%S+')
  for i, limit in ipairs(limits) do
    local slot = after[limit.key] or slot_of(limit, now)
    slot = settled(limit, slot, amounts[i], tonumber(units[i]) or amounts[i])
    -- Nobody hears what a release answers.
    local threshold = limit.kind == 'p' and slot.used and event ~= '' and untold(slot, limit.capacity)
    if threshold then
      remind(slot, limit.capacity, threshold == 100 and limit.capacity or 0)
      told[#told + 1] = (i - 1) .. ' ' .. int(slot.used) .. ' ' .. int(threshold)
    end
    after[limit.key] = slot
  end

  -- First what can fail, when Redis is full: then the call is still open.
  local entry = event == '' and '' or redis.call('XADD', KEYS[3], '*', 'event', event)
  if state == 'o' then
    for _, limit in ipairs(limits) do
      put_slot(limit, after[limit.key])
    end
    if set ~= '0' then
      forget_others(tonumber(set), after)
    end
    redis.call('ZREM', KEYS[2], id)
  end
  if claim ~= '' then
    end_claim(claim, id, fingerprint, ttl, answer)
  end
  -- Also for a release of what Redis never saw: an admission that is still on its way then takes nothing.
  local outcome = entry .. ' ' .. table.concat(told, ' ')
  redis.call('SET', reservation, 's' .. outcome, 'PX', ARGV[3])
  return { 'settled', outcome }
end

local replies = answer_each(settle, 5 + tonumber(ARGV[4]), 8)
store_slots(now)
return replies
