-- Replaces the reserved cost by the actual one and appends the usage event, once.
--   KEYS  1 reservation, 2 leases of the shard, 3 usage stream of the shard
--   ARGV  1 id, 2 event (JSON; '' releases the reservation without a record), 3 ms to remember that it is settled,
--         4... actual units in the order of the admission
-- The limits' keys stand in the reservation, not in KEYS: they share its hash tag, so they are in the same slot.
--
-- Reservation 'a': its lease ran out, and sweep.lua recorded it at the reserved amount under the same event id. The
-- counters are corrected here; the record is not, because the ledger keeps the first event of an id. The stream holds
-- one event either way.
-- No reservation: Redis lost its data. The event is appended; the counters will be seeded from the ledger.

local held = redis.call('GET', KEYS[1])
local state = held and string.sub(held, 1, 1) or ''
if state == 's' then
  return 'again'
end

if held then
  local now = now_micros()
  local plan = cjson.decode(string.match(held, '^.([^\n]*)'))
  for i, taken in ipairs(plan) do
    local limit = { kind = taken[1], key = taken[2], capacity = tonumber(taken[3]) }
    local amount = tonumber(taken[5])
    local used = tonumber(ARGV[3 + i] or taken[5])
    if limit.kind == 'b' then
      limit.rate = tonumber(taken[4])
      local slot = load_slot(limit, now)
      local level = math.min(limit.capacity * MICROS, slot.level + bucket_micros(amount) - bucket_micros(used))
      store_slot(limit, { level = math.max(level, -MAX_DEBT), at = slot.at }, now)
    else
      limit.ends_at_ms = tonumber(taken[4])
      local slot = load_slot(limit, now)
      -- A counter that is gone stays gone: its seed will hold the event that is recorded here.
      if slot then
        store_slot(limit, { used = math.max(0, slot.used + used - amount) }, now)
      end
    end
  end
  redis.call('ZREM', KEYS[2], ARGV[1])
end

redis.call('SET', KEYS[1], 's', 'PX', ARGV[3])
if state ~= 'a' and ARGV[2] ~= '' then
  redis.call('XADD', KEYS[3], '*', 'event', ARGV[2])
end
return 'settled'
