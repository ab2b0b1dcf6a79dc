-- Holds again what an open call held before Redis lost its data: the call runs, whatever the limits say. A bucket is full
-- then and pays nothing.
--   KEYS  1 generation, 2 reservation, 3 leases, 4 the claim of a call that has one
--   ARGV  1 generation, 2 id, 3 what is left of the lease in ms, 4 plan, 5 ifAbandoned event (JSON),
--         6 fingerprint of the claim
-- Answers { 'generation' }, or { 'declared' } also when the reservation is known.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'generation' }
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return { 'declared' }
end
local now = now_micros()
local limits, amounts = read_plan(ARGV[4])
for i, limit in ipairs(limits) do
  if limit.kind ~= 'b' then
    store_slot(limit, taken_from(limit, load_slot(limit, now), amounts[i]), now)
  end
end
redis.call('SET', KEYS[2], 'o' .. ARGV[4] .. '\n' .. ARGV[5])
redis.call('ZADD', KEYS[3], int(math.floor(now / 1000) + tonumber(ARGV[3])), ARGV[2])
if KEYS[4] then
  redis.call('SET', KEYS[4], 'r' .. ARGV[2] .. ' ' .. ARGV[6], 'NX', 'PX', ARGV[3])
end
return { 'declared' }
