-- Gives back what replicas hold in slices: one that leaves, or those that were silent beyond the end of their holding. Of
-- those the buckets keep their level, because nobody knows what was spent at last; they refill by themselves.
--   KEYS  1 ends of what replicas hold
--   ARGV  1 prefix of the keys of holdings, 2 id of the one that leaves ('' for those that ended)
-- Answers how many there were.

local now = now_micros()
local leaves = ARGV[2] ~= ''
local holders = leaves and { ARGV[2] }
  or redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(math.floor(now / 1000)), 'LIMIT', 0, 100)
for _, holder in ipairs(holders) do
  local held = redis.call('HGETALL', ARGV[1] .. holder)
  for i = 1, #held, 2 do
    local limit = read_limit(held[i])
    local after = (leaves or limit.kind ~= 'b') and returned or used_up
    put_slot(limit, after(limit, slot_of(limit, now), tonumber(held[i + 1])))
  end
  redis.call('DEL', ARGV[1] .. holder)
  redis.call('ZREM', KEYS[1], holder)
end
store_slots(now)
return #holders
