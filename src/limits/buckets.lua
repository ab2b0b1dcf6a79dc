-- Prelude of the other scripts: the arithmetic of buckets.ts, number by number (see there for the units).
-- Numbers are doubles: exact as long as they stay below 2^53, which the ceilings on capacity, rate and debt ensure.
-- They are written with %.0f, because Lua's own tostring keeps 14 digits only.

local MICROS = 1000000
local MAX_DEBT = 4000000000 * MICROS
-- Kept beyond the moment at which a bucket is full, and a period over: late settlements find their counters.
local BUCKET_MARGIN_MS = 60000
local PERIOD_MARGIN_MS = 40 * 86400000

local function int(number)
  return string.format('%.0f', number)
end

local function now_micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * MICROS + tonumber(time[2])
end

local function bucket_micros(units)
  return math.min(units * MICROS, MAX_DEBT)
end

local function refill_micros(micros, rate)
  local quotient = math.ceil(micros / rate)
  if quotient * rate < micros then
    return quotient + 1
  end
  return quotient
end

-- A limit: { kind = 'b' | 'p', key, capacity, rate (b) or ends_at_ms (p) }; its slot: { level, at } or { used }.

local function load_bucket(limit, now)
  local full = limit.capacity * MICROS
  local raw = redis.call('GET', limit.key)
  if not raw then
    return { level = full, at = now }
  end
  local level, at = string.match(raw, '^(-?%d+) (%d+)$')
  level = tonumber(level)
  at = tonumber(at)
  local elapsed = now - at
  if elapsed <= 0 then
    return { level = math.min(level, full), at = at }
  end
  local missing = full - level
  if missing <= 0 or elapsed > missing / limit.rate + 1 then
    return { level = full, at = now }
  end
  return { level = math.min(full, level + elapsed * limit.rate), at = now }
end

local function load_slot(limit, now)
  if limit.kind == 'b' then
    return load_bucket(limit, now)
  end
  local used = redis.call('GET', limit.key)
  if not used then
    if limit.seed == nil or limit.seed == '' then
      return nil
    end
    used = limit.seed
  end
  return { used = tonumber(used) }
end

local function store_slot(limit, slot, now)
  if limit.kind == 'b' then
    local missing = math.max(0, limit.capacity * MICROS - slot.level)
    local ttl = math.ceil(refill_micros(missing, limit.rate) / 1000) + BUCKET_MARGIN_MS
    redis.call('SET', limit.key, int(slot.level) .. ' ' .. int(slot.at), 'PX', int(ttl))
  else
    local ttl = math.max(1, limit.ends_at_ms - math.floor(now / 1000)) + PERIOD_MARGIN_MS
    redis.call('SET', limit.key, int(slot.used), 'PX', int(ttl))
  end
end

local function push_state(reply, limit, slot)
  if limit.kind == 'p' then
    reply[#reply + 1] = int(limit.capacity - slot.used)
    reply[#reply + 1] = int(limit.ends_at_ms)
  else
    local missing = math.max(0, limit.capacity * MICROS - slot.level)
    reply[#reply + 1] = int(math.floor(slot.level / MICROS))
    reply[#reply + 1] = int(math.ceil((slot.at + refill_micros(missing, limit.rate)) / 1000))
  end
end

-- Limits from KEYS[first_key...] and four arguments each: kind, capacity, rate or end, seed ('' for none).
local function parse_limits(first_key, first_arg, width)
  local limits = {}
  for i = 1, #KEYS - first_key + 1 do
    local arg = first_arg + (i - 1) * width
    local limit = { kind = ARGV[arg], key = KEYS[first_key + i - 1], capacity = tonumber(ARGV[arg + 1]), seed = ARGV[arg + 3] }
    if limit.kind == 'b' then
      limit.rate = tonumber(ARGV[arg + 2])
    else
      limit.ends_at_ms = tonumber(ARGV[arg + 2])
    end
    limits[i] = limit
  end
  return limits
end
