-- Forgets readers that are gone: the named one, and those that were silent for long. Deleting a reader drops what it
-- still holds, so only readers that hold nothing are deleted, and looking and deleting are one step.
--   KEYS  1 usage stream
--   ARGV  1 group, 2 reader that leaves ('' for none), 3 silence in ms after which a reader is taken for gone

local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for i = 1, #consumer, 2 do
    facts[consumer[i]] = consumer[i + 1]
  end
  if facts['pending'] == 0 and (facts['name'] == ARGV[2] or facts['idle'] > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts['name'])
    gone = gone + 1
  end
end
return gone
