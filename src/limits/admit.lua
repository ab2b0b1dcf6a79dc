-- Takes every limit of a call or none, and holds the reservation under a lease; for many calls, one after the other.
--   KEYS  1 generation, 2 leases
--   ARGV  1 generation, 2 prefix of the reservations' keys, then for each call seven: id, lease in ms, plan of what is
--         taken, ifAbandoned event (JSON), key of its claim and fingerprint ('' without one), seeds as load_known takes them
-- Answers { 'generation' } when Redis is not the one that the caller knows, else for each call one of
--   { 'running' }, { 'mismatch' } or { 'answered', answer } by the claim,
--   { 'unseeded', index, version, ... } for periods that nobody knows,
--   { 'admitted', remaining, reset, ... }, { 'ended', remaining, reset, ... } when the call was admitted and is over,
--   { 'refused', index, wait, remaining, reset, ... }, or { 'failed', why }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end

local now = now_micros()

local function add_states(reply, limits)
  for _, limit in ipairs(limits) do
    push_state(reply, limit, slot_of(limit, now), now)
  end
  return reply
end

-- What the claim says of a call that is not in yet; nil when it may be made.
local function by_claim(claim, fingerprint)
  local kept = redis.call('GET', claim)
  if not kept then
    return nil
  elseif string.sub(kept, 1, 1) ~= 'a' then
    return { string.match(kept, '^r%S+ (.*)$') == fingerprint and 'running' or 'mismatch' }
  end
  local line_end = string.find(kept, '\n', 1, true)
  if string.sub(kept, 2, line_end - 1) ~= fingerprint then
    return { 'mismatch' }
  end
  return { 'answered', string.sub(kept, line_end + 1) }
end

local function admit(at)
  local id, lease_ms, plan, event, claim, fingerprint, seeds = unpack(ARGV, at, at + 6)
  local reservation = ARGV[2] .. id
  -- The same id again is the same call asked twice, for example after a lost answer: it is in already.
  local state = redis.call('GETRANGE', reservation, 0, 0)
  local is_in = state ~= ''
  local claimed = claim ~= '' and not is_in and by_claim(claim, fingerprint)
  if claimed then
    return claimed
  end

  local limits, amounts = read_plan(plan)
  local unseeded = load_known(limits, seeds, now)
  if unseeded then
    return unseeded
  end
  if is_in then
    return add_states({ state == 'o' and 'admitted' or 'ended' }, limits)
  end

  local after = {}
  local refused_by = -1
  local longest = 0
  for i, limit in ipairs(limits) do
    local slot = after[limit.key] or slot_of(limit, now)
    local wait = wait_ms(limit, slot, amounts[i], now)
    if wait > longest then
      longest = wait
      refused_by = i - 1
    end
    after[limit.key] = taken_from(limit, slot, amounts[i])
  end
  if refused_by >= 0 then
    return add_states({ 'refused', refused_by, int(longest) }, limits)
  end

  -- First what can fail, when Redis is full: then nothing was taken.
  redis.call('SET', reservation, 'o' .. plan .. '\n' .. event)
  redis.call('ZADD', KEYS[2], int(math.floor(now / 1000) + tonumber(lease_ms)), id)
  if claim ~= '' then
    redis.call('SET', claim, 'r' .. id .. ' ' .. fingerprint, 'PX', lease_ms)
  end
  for _, limit in ipairs(limits) do
    put_slot(limit, after[limit.key])
  end
  return add_states({ 'admitted' }, limits)
end

local replies = answer_each(admit, 3, 7)
store_slots(now)
return replies
