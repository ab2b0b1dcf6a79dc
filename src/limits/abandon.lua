-- Records a reservation whose lease ran out, as abandoned, once. Its periods count it as used at the reserved amount, its
-- concurrency is free again; a claim ends with the lease by itself.
--   KEYS  1 reservation, 2 leases, 3 usage stream, 4... period counters that the event moves beside those of the
--         reservation
--   ARGV  1 id, 2 ms in which a late settlement is still expected
-- Answers the id of the stream entry, or nothing when it is not open any more.

local state, plan, event = read_reservation(KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if state ~= 'o' then
  return false
end
local now = now_micros()
forget(keys_of(4, #KEYS), now)
release_plan(plan, true, now)
redis.call('SET', KEYS[1], 'a' .. plan .. '\n' .. event, 'PX', ARGV[2])
return redis.call('XADD', KEYS[3], '*', 'event', event)
