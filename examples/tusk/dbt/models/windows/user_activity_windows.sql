-- What was known of each player at several cutoffs, and whether the player then left: the table to
-- learn churn from. Features come from days before the cutoff, the label from days after it.
-- A cutoff has the players seen in the 14 days before it. The last one has no label: it is to score.
with cutoffs as (

    select
        cast({{ dbt.dateadd('day', 'steps.days', end_day()) }} as date) as cutoff,
        steps.days < 0 as has_label
    from (values (0), (-14), (-28), (-42), (-56)) as steps (days)

),

days_before as (

    select
        days.*,
        cutoffs.cutoff,
        cutoffs.has_label,
        {{ dbt.datediff('days.day', 'cutoffs.cutoff', 'day') }} as days_ago
    from {{ ref('user_days') }} as days
    inner join cutoffs
        on days.day < cutoffs.cutoff

),

features as (

    select
        user_id,
        cutoff,
        has_label,
        min(days_ago) as days_since_last_seen,
        max(days_ago) as days_since_first_seen,
        {{ count_where('days_ago <= 7') }} as active_days_7d,
        {{ count_where('days_ago <= 30') }} as active_days_30d,
        cast(sum(case when days_ago <= 7 then sessions else 0 end) as integer) as sessions_7d,
        cast(sum(case when days_ago <= 30 then sessions else 0 end) as integer) as sessions_30d,
        cast(sum(case when days_ago <= 30 then games else 0 end) as integer) as games_30d,
        cast(sum(case when days_ago <= 30 then games_won else 0 end) as integer) as games_won_30d,
        cast(sum(case when days_ago <= 30 then purchases else 0 end) as integer) as purchases_30d,
        cast(sum(case when days_ago <= 30 then tournaments else 0 end) as integer)
            as tournaments_30d,
        coalesce(max(level), 1) as level
    from days_before
    group by user_id, cutoff, has_label
    having min(days_ago) <= 14

),

returns as (

    select distinct
        days.user_id,
        cutoffs.cutoff
    from {{ ref('user_days') }} as days
    inner join cutoffs
        on
            days.day >= cutoffs.cutoff
            and days.day < {{ dbt.dateadd('day', 14, 'cutoffs.cutoff') }}

)

select
    features.user_id,
    features.cutoff,
    features.days_since_last_seen,
    features.days_since_first_seen,
    features.active_days_7d,
    features.active_days_30d,
    features.sessions_7d,
    features.sessions_30d,
    features.games_30d,
    features.games_won_30d,
    features.purchases_30d,
    features.tournaments_30d,
    features.level,
    case when features.has_label then returns.user_id is null end as churned
from features
left join returns
    on
        features.user_id = returns.user_id
        and features.cutoff = returns.cutoff
