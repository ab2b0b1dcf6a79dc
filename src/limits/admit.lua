-- Takes every limit of a call or none, and holds the reservation under a lease.
--   KEYS  1 reservation, 2 leases of the shard, 3... limits
--   ARGV  1 id, 2 lease in ms, 3 plan (JSON of what is taken, for settle.lua), 4 ifAbandoned event (JSON),
--         then for each limit: kind, capacity, rate or end, seed, amount
-- Answers { 'unseeded', index... }, { 'admitted', remaining, reset, ... } or { 'refused', index, wait, remaining, reset, ... }.
-- A reservation is one string: 'o' (open) plan \n event; 'a' (abandoned) plan; 's' (settled).

local now = now_micros()
local limits = parse_limits(3, 5, 5)

local unseeded = { 'unseeded' }
local before = {}
for i, limit in ipairs(limits) do
  if not before[limit.key] then
    before[limit.key] = load_slot(limit, now)
  end
  if not before[limit.key] then
    unseeded[#unseeded + 1] = i - 1
  end
end
if #unseeded > 1 then
  return unseeded
end

-- The same id again is the same call asked twice, for example after a lost answer: it is in already.
if redis.call('EXISTS', KEYS[1]) == 1 then
  local reply = { 'admitted' }
  for _, limit in ipairs(limits) do
    push_state(reply, limit, before[limit.key])
  end
  return reply
end

local after = {}
local refused_by = -1
local longest = 0
for i, limit in ipairs(limits) do
  local amount = tonumber(ARGV[5 + (i - 1) * 5 + 4])
  local slot = after[limit.key] or before[limit.key]
  local wait = 0
  if limit.kind == 'p' then
    if limit.capacity <= 0 or slot.used + amount > limit.capacity then
      wait = math.max(1, limit.ends_at_ms - math.floor(now / 1000))
    end
    after[limit.key] = { used = slot.used + amount }
  else
    local deficit = bucket_micros(amount) - slot.level
    if deficit > 0 then
      wait = math.max(1, math.ceil(refill_micros(deficit, limit.rate) / 1000))
    end
    after[limit.key] = { level = slot.level - bucket_micros(amount), at = slot.at }
  end
  if wait > longest then
    longest = wait
    refused_by = i - 1
  end
end

if refused_by >= 0 then
  local reply = { 'refused', refused_by, int(longest) }
  for _, limit in ipairs(limits) do
    -- Kept although nothing is taken, so that the ledger is not asked again for the same counter.
    if limit.seed ~= '' and limit.kind == 'p' then
      store_slot(limit, before[limit.key], now)
    end
    push_state(reply, limit, before[limit.key])
  end
  return reply
end

local reply = { 'admitted' }
for _, limit in ipairs(limits) do
  store_slot(limit, after[limit.key], now)
  push_state(reply, limit, after[limit.key])
end
redis.call('SET', KEYS[1], 'o' .. ARGV[3] .. '\n' .. ARGV[4])
redis.call('ZADD', KEYS[2], int(math.floor(now / 1000) + tonumber(ARGV[2])), ARGV[1])
return reply
