-- Takes every limit of a call or none, and holds the reservation under a lease.
--   KEYS  1 generation, 2 reservation, 3 leases, 4... limits, last the claim of a call that has one
--   ARGV  1 generation, 2 id, 3 lease in ms, 4 plan (JSON of what is taken), 5 ifAbandoned event (JSON),
--         6 fingerprint of the claim ('' without one), 7... for each limit four as read_limits takes them, and the amount
-- Answers { 'generation' } when Redis is not the one that the caller knows,
--   { 'running' }, { 'mismatch' } or { 'answered', answer } by the claim,
--   { 'unseeded', index, version, ... } for periods that nobody knows,
--   { 'admitted', remaining, reset, ... }, { 'ended', remaining, reset, ... } when the call was admitted and is over, or
--   { 'refused', index, wait, remaining, reset, ... }.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end

local now = now_micros()
local claim = ARGV[6] ~= '' and KEYS[#KEYS] or nil
local limits = read_limits(4, #KEYS - 3 - (claim and 1 or 0), 7, 5)
-- The same id again is the same call asked twice, for example after a lost answer: it is in already.
local state = redis.call('GETRANGE', KEYS[2], 0, 0)
local is_in = state ~= ''

if claim and not is_in then
  local kept = redis.call('GET', claim)
  if kept and string.sub(kept, 1, 1) == 'a' then
    local line_end = string.find(kept, '\n', 1, true)
    if string.sub(kept, 2, line_end - 1) ~= ARGV[6] then
      return { 'mismatch' }
    end
    return { 'answered', string.sub(kept, line_end + 1) }
  elseif kept then
    return { string.match(kept, '^r%S+ (.*)$') == ARGV[6] and 'running' or 'mismatch' }
  end
end

local before, unseeded = load_known(limits, now)
if unseeded then
  return unseeded
end

if is_in then
  local reply = { state == 'o' and 'admitted' or 'ended' }
  for _, limit in ipairs(limits) do
    push_state(reply, limit, before[limit.key], now)
  end
  return reply
end

local after = {}
local refused_by = -1
local longest = 0
for i, limit in ipairs(limits) do
  local amount = tonumber(ARGV[7 + (i - 1) * 5 + 4])
  local slot = after[limit.key] or before[limit.key]
  local wait = wait_ms(limit, slot, amount, now)
  if wait > longest then
    longest = wait
    refused_by = i - 1
  end
  after[limit.key] = taken_from(limit, slot, amount)
end

if refused_by >= 0 then
  local reply = { 'refused', refused_by, int(longest) }
  for _, limit in ipairs(limits) do
    push_state(reply, limit, before[limit.key], now)
  end
  return reply
end

local reply = { 'admitted' }
for _, limit in ipairs(limits) do
  store_slot(limit, after[limit.key], now)
  push_state(reply, limit, after[limit.key], now)
end
redis.call('SET', KEYS[2], 'o' .. ARGV[4] .. '\n' .. ARGV[5])
redis.call('ZADD', KEYS[3], int(math.floor(now / 1000) + tonumber(ARGV[3])), ARGV[2])
if claim then
  redis.call('SET', claim, 'r' .. ARGV[2] .. ' ' .. ARGV[6], 'PX', ARGV[3])
end
return reply
