-- What both layouts do with frames. Their files define how one line is stored and what that has written is taken back
-- (store, take_back, which returns what keeps it from it), and how deliveries are told apart and ended (divide, finish).

-- Returns for each id whether it is none, or wasn't seen in the last `window` milliseconds; and which ids to remember, in
-- which set, and which one to forget if it is a new one. They are remembered for as long, at most twice as long, in a set
-- a window, so that forgetting is dropping a set. A set in use has the empty id.
local function unseen(window, ids)
  local round = math.floor(now() / window)
  local set = stem .. 'seen:' .. round
  local here = redis.call('SMISMEMBER', set, '', unpack(ids))
  local before = redis.call('SMISMEMBER', stem .. 'seen:' .. (round - 1), unpack(ids))
  local fresh, new, known = {}, {''}, {}
  for i, id in ipairs(ids) do
    fresh[i] = id == '' or (here[i + 1] == 0 and before[i] == 0 and not known[id])
    if id ~= '' and fresh[i] then new[#new + 1], known[id] = id, true end
  end
  return fresh, #new > 1 and new, set, here[1] == 0 and stem .. 'seen:' .. (round - 2)
end

-- Reads what is to be published: a count, the window, so many records, with a window so many ids, and for each frame
-- that asks for more its number, priority, delay and time to live. Returns the records that are new, what they ask, and
-- their ids as `unseen` does.
local function published()
  local count, window = tonumber(ARGV[2]), tonumber(ARGV[3])
  local at, asked, fresh, new, set, past = 3 + count, {}, nil, nil, nil, nil
  if window > 0 then
    fresh, new, set, past = unseen(window, {unpack(ARGV, at + 1, at + count)})
    at = at + count
  end
  for i = at + 1, #ARGV, 4 do
    asked[tonumber(ARGV[i])] = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])}
  end
  local records, asks = {}, {}
  for i = 1, count do
    if not fresh or fresh[i] then
      records[#records + 1] = ARGV[3 + i]
      asks[#records] = asked[i]
    end
  end
  return records, asks, new, set, past
end

-- Reads what is to be stored instead of deliveries, each seven arguments from place and token on; `numbers` are those
-- that are still ours. Returns a line of each queue, by its stem.
local function replacements(numbers)
  local lines = {}
  for _, number in ipairs(numbers) do
    local i = 3 + 7 * (number - 1)
    local at = KEYS[tonumber(ARGV[i + 2])]
    local line = lines[at] or {records = {}, asks = {}}
    lines[at] = line
    line.records[#line.records + 1] = ARGV[i + 3]
    line.asks[#line.records] = {tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])}
  end
  return lines
end

local function write(records, asks, places, new, set, past)
  local wakes = store(stem, records, asks, places)
  if new then redis.call('SADD', set, unpack(new)) end
  if new and past then
    redis.call('PEXPIRE', set, 3 * ARGV[3])
    redis.call('UNLINK', past)
  end
  return wakes
end

-- Takes back what `write` has done; returns what keeps it from it.
local function unwrite(places, new, set)
  local problem = take_back(stem, places)
  return new and run_all({{'SREM', set, unpack(new)}}) or problem
end

local function publish()
  local records, asks, new, set, past = published()
  local places = {}
  local done, answer = pcall(write, records, asks, places, new, set, past)
  if done and ARGV[1] ~= 'declare' then return ring(stem, answer) end
  local problem = unwrite(places, new, set)
  if not done then return {err = answer} end
  return problem
end

-- Stores what `publish` would, and takes it back: so what is in the way is told before anything is lost by it. Before
-- that, it takes back what isn't there, which shows that it may. A queue that wasn't there isn't there afterwards.
local function declare()
  strike('')
  local problem = unwrite(NOWHERE, tonumber(ARGV[3]) > 0 and {''}, stem .. 'seen:')
  if problem then return problem end
  local made = {stem .. 'none'}
  for _, at in ipairs(LASTING) do
    if redis.call('EXISTS', at) == 0 then made[#made + 1] = at end
  end
  redis.call('UNLINK', unpack(made))
  problem = publish()
  redis.call('UNLINK', unpack(made))
  return problem
end

-- Ends deliveries once what replaces them is stored; before that, it ends none, which shows that it may.
local function replace()
  local fenced, held, numbers = divide(7)
  if #held == 0 then return fenced end
  strike('')
  finish({'0-0'})
  local stored, wakes = {}, {}
  for at, line in pairs(replacements(numbers)) do
    stored[at] = {}
    local done, answer = pcall(store, at, line.records, line.asks, stored[at])
    if not done then
      for other, places in pairs(stored) do take_back(other, places) end
      return {err = answer}
    end
    wakes[at] = answer
  end
  finish(held)
  for at, count in pairs(wakes) do ring(at, count) end
  return fenced
end
