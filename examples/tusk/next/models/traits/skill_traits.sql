-- A second model of traits: how well a player does at the tables, over the last 30 days.
select
    user_id,
    cast(sum(games_won) as double) / nullif(sum(games), 0) as win_rate_30d
from {{ ref('user_days') }}
where day >= {{ dbt.dateadd('day', -30, end_day()) }}
group by user_id
