-- Prelude of the other scripts: the arithmetic of buckets.ts, number by number (see there for the units).
-- Numbers are doubles: exact as long as they stay below 2^53, which the ceilings on capacity, refill and debt ensure.
-- They are written with %.0f, because Lua's own tostring keeps 14 digits only.

local MAX_DEBT = 4e15
local CONCURRENCY_RETRY_MS = 500
-- Kept beyond the moment at which a bucket is full, and a period over: late settlements find their counters.
local BUCKET_MARGIN_MS = 60000
local PERIOD_MARGIN_MS = 40 * 86400000
-- Since its last change: longer than any lease.
local CONCURRENCY_TTL_MS = 7 * 86400000

local function int(number)
  return string.format('%.0f', number)
end

local function words_of(text, pattern)
  local words = {}
  for word in string.gmatch(text, pattern) do
    words[#words + 1] = word
  end
  return words
end

local function now_micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A limit: { kind = 'b' (bucket) | 'p' (period) | 'c' (concurrency), key, capacity, rate and parts (b), ends_at_ms (p) }.
local function new_limit(kind, capacity, rate_or_end, parts, key)
  local limit = { kind = kind, key = key, capacity = tonumber(capacity) }
  if kind == 'b' then
    limit.rate = tonumber(rate_or_end)
    limit.parts = tonumber(parts)
  elseif kind == 'p' then
    limit.ends_at_ms = tonumber(rate_or_end)
  end
  return limit
end

local function bucket_parts(limit, units)
  return math.min(units * limit.parts, MAX_DEBT)
end

local function refill_micros(limit, parts)
  local quotient = math.ceil(parts / limit.rate)
  if quotient * limit.rate < parts then
    return quotient + 1
  end
  return quotient
end

-- The highest threshold that a period passed, in percent, if nobody was told of it.
local function untold(slot, capacity)
  if capacity == 0 or slot.used < capacity * 0.8 then
    return nil
  end
  if slot.used < capacity then
    return slot.told80 < capacity and 80 or nil
  end
  return slot.told100 < capacity and 100 or nil
end

-- What a bucket can have beside the units of it that are out in slices: with them it is full.
local function full_parts(limit, out)
  return math.max(0, limit.capacity - out) * limit.parts
end

-- 'level at', and after it how many units are out in slices, where there are any.
local function load_bucket(limit, raw, now)
  if not raw then
    return { level = full_parts(limit, 0), at = now, out = 0 }
  end
  local level, at, out = string.match(raw, '^(-?%d+) (%d+) ?(%d*)$')
  level = tonumber(level)
  at = tonumber(at)
  out = tonumber(out) or 0
  local full = full_parts(limit, out)
  local elapsed = now - at
  if elapsed <= 0 then
    return { level = math.min(level, full), at = at, out = out }
  end
  local missing = full - level
  if missing <= 0 or elapsed > missing / limit.rate + 1 then
    return { level = full, at = now, out = out }
  end
  return { level = math.min(full, level + elapsed * limit.rate), at = now, out = out }
end

-- A period with all that is kept of it; `used` is nil while it is unknown, and only then its version counts.
local function period_slot(used, held, version, told)
  return { used = used, held = held, version = version, told80 = told.told80, told100 = told.told100 }
end

-- 'used held version told80 told100', with 'u' for used while it is unknown.
local function load_period(raw)
  if not raw then
    return { held = 0, version = 0, told80 = 0, told100 = 0 }
  end
  local used, held, version, told80, told100 = string.match(raw, '^(%S+) (%d+) (%d+) (%d+) (%d+)$')
  local told = { told80 = tonumber(told80), told100 = tonumber(told100) }
  return period_slot(tonumber(used), tonumber(held), tonumber(version), told)
end

local function load_slot(limit, now)
  local raw = redis.call('GET', limit.key)
  if limit.kind == 'b' then
    return load_bucket(limit, raw, now)
  elseif limit.kind == 'c' then
    return { open = raw and tonumber(raw) or 0 }
  end
  return load_period(raw)
end

local function period_text(slot)
  local used = slot.used and int(slot.used) or 'u'
  return table.concat({ used, int(slot.held), int(slot.version), int(slot.told80), int(slot.told100) }, ' ')
end

local function store_slot(limit, slot, now)
  if limit.kind == 'b' then
    local missing = math.max(0, limit.capacity * limit.parts - slot.level)
    local ttl = math.ceil(refill_micros(limit, missing) / 1000) + BUCKET_MARGIN_MS
    local text = int(slot.level) .. ' ' .. int(slot.at) .. (slot.out > 0 and ' ' .. int(slot.out) or '')
    redis.call('SET', limit.key, text, 'PX', int(ttl))
  elseif limit.kind == 'p' then
    local ttl = math.max(1, limit.ends_at_ms - math.floor(now / 1000)) + PERIOD_MARGIN_MS
    redis.call('SET', limit.key, period_text(slot), 'PX', int(ttl))
  elseif slot.open == 0 then
    redis.call('DEL', limit.key)
  else
    redis.call('SET', limit.key, int(slot.open), 'PX', CONCURRENCY_TTL_MS)
  end
end

-- 0 when the limit covers the amount, else milliseconds until it could.
local function wait_ms(limit, slot, amount, now)
  if limit.kind == 'b' then
    local deficit = bucket_parts(limit, amount) - slot.level
    return deficit <= 0 and 0 or math.max(1, math.ceil(refill_micros(limit, deficit) / 1000))
  elseif limit.kind == 'p' then
    if limit.capacity > 0 and slot.used + slot.held + amount <= limit.capacity then
      return 0
    end
    return math.max(1, limit.ends_at_ms - math.floor(now / 1000))
  end
  return slot.open + amount <= limit.capacity and 0 or CONCURRENCY_RETRY_MS
end

-- Units that could be taken at once; nil of a period that nobody knows.
local function units_left(limit, slot)
  if limit.kind == 'b' then
    return math.floor(slot.level / limit.parts)
  elseif limit.kind == 'p' then
    return slot.used and limit.capacity - slot.used - slot.held
  end
  return limit.capacity - slot.open
end

local function taken_from(limit, slot, amount)
  if limit.kind == 'b' then
    return { level = slot.level - bucket_parts(limit, amount), at = slot.at, out = slot.out }
  elseif limit.kind == 'c' then
    return { open = slot.open + amount }
  end
  return period_slot(slot.used, slot.held + amount, slot.version, slot)
end

-- Where `amount` was taken and `used` was used: the difference returns, clipped at capacity, or becomes debt.
local function settled(limit, slot, amount, used)
  if limit.kind == 'b' then
    local level = slot.level + bucket_parts(limit, amount) - bucket_parts(limit, used)
    return { level = math.max(math.min(full_parts(limit, slot.out), level), -MAX_DEBT), at = slot.at, out = slot.out }
  elseif limit.kind == 'c' then
    return { open = math.max(0, slot.open - amount) }
  end
  local held = math.max(0, slot.held - amount)
  if not slot.used then
    return period_slot(nil, held, slot.version + 1, slot)
  end
  return period_slot(slot.used + used, held, slot.version, slot)
end

-- Of units that are out in slices: taken for one, used by calls, and given back.
local function lent(limit, slot, amount)
  local after = taken_from(limit, slot, amount)
  if limit.kind == 'b' then
    after.out = slot.out + amount
  end
  return after
end

local function used_up(limit, slot, amount)
  if limit.kind ~= 'b' then
    return slot
  end
  return { level = slot.level, at = slot.at, out = math.max(0, slot.out - amount) }
end

local function returned(limit, slot, amount)
  return settled(limit, used_up(limit, slot, amount), amount, 0)
end

-- Notes what was told of a period, by whoever remembers it.
local function remind(slot, told80, told100)
  slot.told80 = math.max(slot.told80, told80)
  slot.told100 = math.max(slot.told100, told100)
end

-- The slots of a script that takes many calls: each is loaded once and stored once, however many calls share it. What a
-- call sees is what it would see alone after those before it.
local slots = {}
local loaded_by = {}
local changed = {}

local function slot_of(limit, now)
  local slot = slots[limit.key]
  if slot and loaded_by[limit.key] ~= limit and limit.kind == 'b' then
    -- The same counter with another capacity or rate, because somebody set it meanwhile.
    if changed[limit.key] then
      return { level = math.min(slot.level, full_parts(limit, slot.out)), at = slot.at, out = slot.out }
    end
    slot = nil
  end
  if not slot then
    slot = load_slot(limit, now)
    slots[limit.key] = slot
    loaded_by[limit.key] = limit
  end
  return slot
end

local function put_slot(limit, slot)
  slots[limit.key] = slot
  loaded_by[limit.key] = limit
  changed[limit.key] = limit
end

local function store_slots(now)
  for key, limit in pairs(changed) do
    store_slot(limit, slots[key], now)
  end
end

-- By the clock, so that no version comes twice, whatever the counter was meanwhile.
local function forgotten(slot, now)
  return period_slot(nil, slot.held, math.max(now, slot.used and 1 or slot.version + 1), slot)
end

-- Names of periods that this script has found not to exist.
local absent = {}

-- Makes the periods unknown, those that exist: a seed is asked for a period that exists, so a period without a key has
-- nothing to forget.
local function forget(names, now)
  local stored = {}
  for _, name in ipairs(names) do
    if changed[name] then
      slots[name] = forgotten(slots[name], now)
    elseif not absent[name] then
      stored[#stored + 1] = name
    end
  end
  if #stored == 0 then
    return
  elseif #stored < 1000 and redis.call('EXISTS', unpack(stored)) == 0 then
    for _, name in ipairs(stored) do
      absent[name] = true
    end
    return
  end
  for _, name in ipairs(stored) do
    local raw = redis.call('GET', name)
    if raw then
      redis.call('SET', name, period_text(forgotten(load_period(raw), now)), 'KEEPTTL')
      slots[name] = nil
    end
  end
end

-- KEYS[first...last].
local function keys_of(first, last)
  local names = {}
  for i = first, last do
    names[#names + 1] = KEYS[i]
  end
  return names
end

local function push_state(reply, limit, slot, now)
  if limit.kind == 'p' then
    reply[#reply + 1] = int(limit.capacity - slot.used - slot.held)
    reply[#reply + 1] = int(limit.ends_at_ms)
  elseif limit.kind == 'c' then
    reply[#reply + 1] = int(limit.capacity - slot.open)
    reply[#reply + 1] = int(math.floor(now / 1000))
  else
    local missing = math.max(0, limit.capacity * limit.parts - slot.level)
    reply[#reply + 1] = int(math.floor(slot.level / limit.parts))
    reply[#reply + 1] = int(math.ceil((slot.at + refill_micros(limit, missing)) / 1000))
  end
end

-- Limits that a script has read, by what is written of them: calls of a batch share them.
local limits_read = {}

-- Of 'kind capacity rate-or-end parts key'.
local function read_limit(text)
  local limit = limits_read[text]
  if not limit then
    limit = new_limit(string.match(text, '^(%S+) (%S+) (%S+) (%S+) (.*)$'))
    limit.text = text
    limits_read[text] = limit
  end
  return limit
end

-- What a call takes: its limits, and the amount of each. A plan has 'amount limit' of each, with a tab between two; no key
-- has white space. It is all that is needed to settle, so a settlement names no limits; their keys share the slot of those
-- that are named.
local function read_plan(plan)
  local limits = {}
  local amounts = {}
  for amount, text in string.gmatch(plan, '(%d+) ([^\t]+)') do
    limits[#limits + 1] = read_limit(text)
    amounts[#amounts + 1] = tonumber(amount)
  end
  return limits, amounts
end

-- Loads the slots of limits, and answers a reply that names the periods among them that are unknown, or nil. A seed that
-- was asked at the version that its period still has is installed first, whatever becomes of the call. A period that does
-- not exist begins to, so that its version moves from now on. Seeds: 'index used version', with a comma between two.
local function load_known(limits, seeds, now)
  local seed_of = {}
  for index, used, version in string.gmatch(seeds, '(%d+) (%d+) (%d+)') do
    seed_of[tonumber(index) + 1] = { used = tonumber(used), version = tonumber(version) }
  end
  local unseeded = { 'unseeded' }
  for i, limit in ipairs(limits) do
    local slot = slot_of(limit, now)
    local is_unknown = limit.kind == 'p' and not slot.used
    if is_unknown then
      local seed = seed_of[i]
      if seed and seed.version == slot.version then
        put_slot(limit, period_slot(seed.used, slot.held, 0, slot))
        is_unknown = false
      elseif slot.version == 0 then
        slot = period_slot(nil, slot.held, now, slot)
        put_slot(limit, slot)
      end
    end
    if is_unknown then
      unseeded[#unseeded + 1] = i - 1
      unseeded[#unseeded + 1] = int(slot.version)
    end
  end
  return #unseeded > 1 and unseeded or nil
end

-- For each call of a batch, by the index of its first argument, what `run` answers; { 'failed', why } of one that Redis
-- could not run, so that it fails alone.
local function answer_each(run, first, width)
  local replies = {}
  for at = first, #ARGV, width do
    local is_run, reply = pcall(run, at)
    if not is_run then
      reply = { 'failed', type(reply) == 'table' and reply.err or tostring(reply) }
    end
    replies[#replies + 1] = reply
  end
  return replies
end

-- A reservation is one string. 'o' plan \n event: open (slice-batch.ts writes it, too). 'a' plan \n event: recorded as abandoned. 's': settled, where it
-- has one with its outcome (see settle.lua).
local function read_reservation(key)
  local held = redis.call('GET', key)
  if not held then
    return ''
  end
  local plan, event = string.match(held, '^.([^\n]*)\n(.*)$')
  return string.sub(held, 1, 1), plan, event
end

-- Settles what a reservation took except its buckets: nothing was used, or all that was reserved. Nobody hears of
-- thresholds then.
local function release_plan(plan, is_used, now)
  local limits, amounts = read_plan(plan)
  for i, limit in ipairs(limits) do
    if limit.kind ~= 'b' then
      store_slot(limit, settled(limit, load_slot(limit, now), amounts[i], is_used and amounts[i] or 0), now)
    end
  end
end

-- A claim is one string. 'r' owner ' ' fingerprint: its call runs. 'a' fingerprint \n answer: its call was answered.
-- Ends the call's hold of its claim. An answer (with a ttl) is kept unless the claim is somebody else's meanwhile.
local function end_claim(key, owner, fingerprint, ttl, answer)
  local own = 'r' .. owner .. ' '
  local begin = redis.call('GETRANGE', key, 0, #own - 1)
  if ttl ~= '' and (begin == own or begin == '') then
    redis.call('SET', key, 'a' .. fingerprint .. '\n' .. answer, 'PX', ttl)
  elseif begin == own then
    redis.call('DEL', key)
  end
end
