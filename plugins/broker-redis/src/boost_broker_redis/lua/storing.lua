-- What both layouts do with frames. Their files define how one line is stored and what that has written is taken back
-- (store, take_back), and how deliveries are told apart and ended (divide, finish).

-- Returns for each id whether it is none, or wasn't seen in the last `window` milliseconds, and what is to be remembered: for
-- as long, at most twice as long, in a set a window, so that forgetting is dropping a set. A set in use has the empty id.
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
  local past = here[1] == 0 and stem .. 'seen:' .. (round - 2)
  return fresh, #new > 1 and {set = set, ids = new, past = past, keep = 3 * window}
end

local function remember(seen)
  redis.call('SADD', seen.set, unpack(seen.ids))
  if seen.past then
    redis.call('PEXPIRE', seen.set, seen.keep)
    redis.call('UNLINK', seen.past)
  end
end

-- Reads what is to be published: a count, the window, so many records, with a window so many ids, and for each frame
-- that asks for more its number, priority, delay and time to live. Returns the line of those that are new, by the stem
-- of its queue, and the ids to remember.
local function published()
  local count, window = tonumber(ARGV[2]), tonumber(ARGV[3])
  local at, asked, fresh, seen = 3 + count, {}, nil, nil
  if window > 0 then
    fresh, seen = unseen(window, {unpack(ARGV, at + 1, at + count)})
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
  return {[stem] = {records = records, asks = asks}}, seen
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

local function undo(stored, seen)
  for at, places in pairs(stored) do take_back(at, places) end
  if seen then redis.pcall('SREM', seen.set, unpack(seen.ids)) end
end

-- Stores lines and remembers ids, all or nothing. Returns the error, and the places in each line, by the stem of its queue.
local function store_all(lines, seen)
  local stored = {}
  local done, problem = pcall(function()
    for at, line in pairs(lines) do
      stored[at] = {}
      stored[at].wakes = store(at, line.records, line.asks, stored[at])
    end
    if seen then remember(seen) end
  end)
  if done then return nil, stored end
  undo(stored, seen)
  return {err = problem}
end

local function ring_all(stored)
  for at, places in pairs(stored) do ring(at, places.wakes) end
end

local function publish()
  local problem, stored = store_all(published())
  if problem then return problem end
  ring_all(stored)
end

-- Ends deliveries once what replaces them is stored; before that, it ends none, which shows that it may.
local function replace()
  local fenced, held, numbers = divide(7)
  if #held == 0 then return fenced end
  strike('')
  finish({'0-0'})
  local problem, stored = store_all(replacements(numbers))
  if problem then return problem end
  finish(held)
  ring_all(stored)
  return fenced
end

-- Stores what `publish` would, and takes it back: so what is in the way is told before anything is lost by it.
local function declare()
  strike('')
  local lines, seen = published()
  local problem, stored = store_all(lines, seen)
  if problem then return problem end
  undo(stored, seen)
end
